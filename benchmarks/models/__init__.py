"""Trained models to measure quantization on: what they learn from, their nets, and two ways to harm one."""
