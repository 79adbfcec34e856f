"""Drawing with a trained model as the parameters say, and reporting how it was done."""
