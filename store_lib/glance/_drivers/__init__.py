"""The stores of each type, with the attributes that Glance reads of them."""
