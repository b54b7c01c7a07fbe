# docker build -t lntl .   then   docker run --rm -v "$PWD/results:/home/user/results" lntl train colored_mnist_default
FROM python:3.11-slim
COPY . /src
RUN pip install --no-cache-dir -r /src/requirements.txt && pip install --no-cache-dir --no-deps /src && rm -rf /src
RUN useradd --create-home user
USER user
WORKDIR /home/user
ENTRYPOINT ["lntl"]
CMD ["--help"]
