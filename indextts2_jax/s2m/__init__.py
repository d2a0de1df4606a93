"""S2M: semantic codes + GPT latents -> mel."""
