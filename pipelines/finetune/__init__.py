"""Fine-tuning: from texts on disk to a model directory. The loop is a plain function; Ray only calls it."""
