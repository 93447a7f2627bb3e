"""A policy server: clients send observations over HTTP and get actions."""
