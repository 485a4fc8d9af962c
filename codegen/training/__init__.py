"""Files that trainers read: Megatron-LM, torchtitan, DeepSpeed, Megatron-Bridge, PyTorch."""
