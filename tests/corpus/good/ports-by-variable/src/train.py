import os

print(os.environ["AZURE_ML_INPUT_rows"], os.environ["AZURE_ML_OUTPUT_model"])
