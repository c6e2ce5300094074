"""From stored records to batches on the device: decode, augment, tokenize, order, prefetch."""
