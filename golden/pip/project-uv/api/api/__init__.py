def main():
    print("api")
