"""Episodes on disk: records, the database, deduplication, verification and compaction."""
