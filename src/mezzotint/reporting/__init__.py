"""Reports: figures and the page. They read JSON and PNG, never tensors."""
