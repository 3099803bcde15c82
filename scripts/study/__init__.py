"""What the stages share, one module per subject. Stages never import each other: they meet in files."""
