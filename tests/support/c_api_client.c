/* Loads a SavedModel as TensorFlow Serving does, without Python, and asks it for embeddings.

   c_api_client EXPORT INPUT EMBEDDING OK THREADS REQUESTS FILE...

   INPUT, EMBEDDING (any float32 NxD) and OK are "operation:index". Prints, as JSON, the embedding and the ok flag of
   each file asked for alone; then THREADS threads send REQUESTS requests each, of 1 to 4 files
   drawn at random, and the number of rows that differ from the file's own is printed, and the
   resident memory in KiB after a quarter of the requests and after all. */

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tensorflow/c/c_api.h"

enum { MOST = 4 };

typedef struct {
  char *data;
  long size;
} File;

static TF_Session *session;
static TF_Output input, embedding, ok_flag;
static File *files;
static int num_files, num_requests, num_threads, dim;
static float *alone;         /* num_files x dim */
static unsigned char *is_ok; /* num_files */
static long wrong, done, memory_early;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void check(TF_Status *status, const char *what) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s: %s\n", what, TF_Message(status));
  exit(1);
}

static TF_Output find(TF_Graph *graph, char *name) {
  char *colon = strrchr(name, ':');
  *colon = 0;
  TF_Output output = {TF_GraphOperationByName(graph, name), atoi(colon + 1)};
  if (!output.oper) {
    fprintf(stderr, "no operation %s\n", name);
    exit(1);
  }
  return output;
}

static File read_file(const char *path) {
  FILE *stream = fopen(path, "rb");
  if (!stream) {
    perror(path);
    exit(1);
  }
  fseek(stream, 0, SEEK_END);
  File file = {NULL, ftell(stream)};
  rewind(stream);
  file.data = malloc(file.size + 1);
  if (fread(file.data, 1, file.size, stream) != (size_t)file.size) exit(1);
  fclose(stream);
  return file;
}

static long memory(void) {
  long pages = 0, resident = 0;
  FILE *stream = fopen("/proc/self/statm", "r");
  if (fscanf(stream, "%ld %ld", &pages, &resident) != 2) exit(1);
  fclose(stream);
  return resident * sysconf(_SC_PAGESIZE) / 1024;
}

static void free_texts(void *data, size_t length, void *count) {
  (void)length;
  for (long i = 0; i < (long)count; i++) TF_StringDealloc((TF_TString *)data + i);
  free(data);
}

/* Embeds the files of the given numbers; the caller deletes both tensors. */
static void embed(const int *numbers, int count, TF_Tensor *outputs[2]) {
  TF_TString *texts = malloc(count * sizeof(TF_TString));
  for (int i = 0; i < count; i++) {
    TF_StringInit(texts + i);
    TF_StringCopy(texts + i, files[numbers[i]].data, files[numbers[i]].size);
  }
  int64_t shape[1] = {count};
  TF_Tensor *batch = TF_NewTensor(TF_STRING, shape, 1, texts, count * sizeof(TF_TString),
                                  free_texts, (void *)(long)count);
  TF_Output wanted[2] = {embedding, ok_flag};
  TF_Status *status = TF_NewStatus();
  TF_SessionRun(session, NULL, &input, &batch, 1, wanted, outputs, 2, NULL, 0, NULL, status);
  check(status, "run");
  TF_DeleteStatus(status);
  TF_DeleteTensor(batch);
}

static void *load(void *seed) {
  unsigned state = (unsigned)(long)seed;
  for (int request = 0; request < num_requests; request++) {
    int numbers[MOST], count = 1 + rand_r(&state) % MOST;
    for (int i = 0; i < count; i++) numbers[i] = rand_r(&state) % num_files;
    TF_Tensor *outputs[2];
    embed(numbers, count, outputs);
    const float *rows = TF_TensorData(outputs[0]);
    const unsigned char *flags = TF_TensorData(outputs[1]);
    int bad = 0;
    for (int i = 0; i < count; i++) {
      float difference = 0;
      for (int j = 0; j < dim; j++)
        difference = fmaxf(difference, fabsf(rows[i * dim + j] - alone[numbers[i] * dim + j]));
      bad += !(difference <= 1e-5f) || flags[i] != is_ok[numbers[i]];
    }
    TF_DeleteTensor(outputs[0]);
    TF_DeleteTensor(outputs[1]);
    pthread_mutex_lock(&lock);
    wrong += bad;
    if (++done == (long)num_threads * num_requests / 4) memory_early = memory();
    pthread_mutex_unlock(&lock);
  }
  return NULL;
}

int main(int argc, char **argv) {
  if (argc < 8) return 2;
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  const char *tags[] = {"serve"};
  session =
      TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(status, "load");
  input = find(graph, argv[2]);
  embedding = find(graph, argv[3]);
  ok_flag = find(graph, argv[4]);
  num_threads = atoi(argv[5]);
  num_requests = atoi(argv[6]);
  num_files = argc - 7;
  files = malloc(num_files * sizeof(File));
  is_ok = malloc(num_files);
  for (int i = 0; i < num_files; i++) files[i] = read_file(argv[7 + i]);

  printf("{\"files\": [");
  for (int i = 0; i < num_files; i++) {
    TF_Tensor *outputs[2];
    embed(&i, 1, outputs);
    if (i == 0) {
      dim = (int)TF_Dim(outputs[0], 1);
      alone = malloc(sizeof(float) * num_files * dim);
    }
    memcpy(alone + i * dim, TF_TensorData(outputs[0]), dim * sizeof(float));
    is_ok[i] = *(unsigned char *)TF_TensorData(outputs[1]);
    TF_DeleteTensor(outputs[0]);
    TF_DeleteTensor(outputs[1]);
    printf("%s{\"ok\": %s, \"embedding\": [", i ? ", " : "", is_ok[i] ? "true" : "false");
    for (int j = 0; j < dim; j++) printf("%s%.9g", j ? ", " : "", alone[i * dim + j]);
    printf("]}");
  }
  printf("]");

  pthread_t threads[64];
  for (long i = 0; i < num_threads; i++) pthread_create(threads + i, NULL, load, (void *)(i + 1));
  for (int i = 0; i < num_threads; i++) pthread_join(threads[i], NULL);
  printf(", \"requests\": %ld, \"wrong\": %ld, \"memory_early\": %ld, \"memory\": %ld}\n", done,
         wrong, memory_early, memory());
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  return 0;
}
