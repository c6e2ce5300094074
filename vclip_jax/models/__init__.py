"""The image and text towers, the model that joins them, and the losses."""
