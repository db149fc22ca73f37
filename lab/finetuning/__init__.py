"""Fine-tuning of encoders on labelled tasks by the protocol of the ELECTRA paper."""
