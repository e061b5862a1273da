"""The cache: keys, sealed files, the plan of what is missing, and the jobs that make it."""
