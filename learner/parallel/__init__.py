"""One model on several processes: who they are, what each has of the model, of a batch, and of an
update."""
