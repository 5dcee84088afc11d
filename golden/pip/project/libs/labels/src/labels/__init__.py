text = "label"
