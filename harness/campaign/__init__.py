"""Many runs, one question: is this patch worse?"""
