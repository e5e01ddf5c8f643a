import os

KEY = os.environ["ACCOUNT_KEY"]
PASSWORD = "your-password-1"
URL = f"https://{KEY}:{PASSWORD}@example.org"
CONNECTION = "AccountKey=${ACCOUNT_KEY}"
api_key = "${{ secrets.API_KEY1 }}"
