"""From stored records to batches on the devices: decode, augment, tokenize, order, prefetch."""
