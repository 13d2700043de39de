"""Sample -> Batch: decode, augment, collate, and the two loaders. Sits between `shards/` and the training loop."""
