"""Where an emotion vector comes from: a sentence (Qwen3), weights per emotion, or a recording."""
