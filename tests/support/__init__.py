"""What tests share: cases, children, stand-ins, comparisons. Nothing here is a test."""
