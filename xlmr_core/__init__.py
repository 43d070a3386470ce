"""XLM-RoBERTa in plain torch: tokenization, the packed encoder, heads, checkpoints, and the graph that joins them.

Start reading at `xlmr_core.graph`.
"""
