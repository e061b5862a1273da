"""An experiment: from its config to its targets, what they cost, and how its jobs are run."""
