"""Evaluation on records that were held out: questions, captions, text and recorded robots."""
