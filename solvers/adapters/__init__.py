"""LoRA adapters onto replicas."""
