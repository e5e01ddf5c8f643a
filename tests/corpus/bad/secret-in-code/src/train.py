TOKEN = "ghp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
API_KEY = "correct1horse2"
URL = "https://somebody:correct1horse2@store.org"
