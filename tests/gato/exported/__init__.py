"""Tests of policy files and of acting with them."""
