"""Packages of environments that need some work before they run here, and what does it."""
