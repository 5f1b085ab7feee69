"""Images and their truth, decoded once into stores."""
