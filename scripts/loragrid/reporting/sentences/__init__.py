"""What compare found, in sentences: codes and numbers go in, English comes out."""
