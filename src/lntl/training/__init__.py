"""Train: phases of epochs of steps, on Lightning Fabric."""
