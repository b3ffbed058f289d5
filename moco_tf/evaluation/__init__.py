"""What was learned: features and their nearest neighbours."""
