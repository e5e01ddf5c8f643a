def go():
    import mlflow.xgboost

    mlflow.xgboost.autolog()
