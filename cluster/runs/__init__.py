"""What a run and a data set are on disk: settings, presets, folders, imports."""
