"""What users import. Nothing heavy is imported here: `gato runs` starts without torch and without Ray."""
