"""Importers of records: text, captions and questions about images."""
