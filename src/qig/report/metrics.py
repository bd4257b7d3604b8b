METRICS={"accuracy":1,"nll":1}
