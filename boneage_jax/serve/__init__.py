"""The HTTP service and its page: uploads, micro-batches, limits; `boneage serve` runs it."""
