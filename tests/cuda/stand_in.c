/* A device on which nothing is computed: CUDA's runtime and driver as torch, cuBLAS's callers and Triton ask for them.

   Memory is counted as a device of STAND_IN_BYTES would have it, and lent as addresses that nothing is written to; a
   copy to the host brings zeros. Launches, streams and events do nothing. Waits of the host for the device are
   counted: stand_in_waits(). Every other function of either library is a weak one that returns 0 (stand_in.py writes
   them). */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cuda.h>
#include <cuda_runtime_api.h>

#define MOST 65536
#define HANDLE(type, at) (*(at) = (type)malloc(256), 0)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { char *at; size_t size; } lent[MOST];
static size_t taken;
static long waits;

long stand_in_waits(void) { return waits; }

static size_t whole(void) {
  const char *said = getenv("STAND_IN_BYTES");
  return said ? strtoull(said, NULL, 10) : 80000000000ull;
}

/* --------------------------------------------------------------------------------------------------------- memory */

cudaError_t cudaMalloc(void **at, size_t size) {
  cudaError_t error = cudaErrorMemoryAllocation;
  int i = 0;
  *at = NULL;
  pthread_mutex_lock(&lock);
  while (i < MOST && lent[i].at) i++;
  if (i < MOST && taken + size <= whole()) {
    void *found = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found != MAP_FAILED) {
      *at = lent[i].at = found;
      taken += lent[i].size = size;
      error = cudaSuccess;
    }
  }
  pthread_mutex_unlock(&lock);
  return error;
}

cudaError_t cudaFree(void *at) {
  pthread_mutex_lock(&lock);
  for (int i = 0; at && i < MOST; i++)
    if (lent[i].at == at) {
      munmap(at, lent[i].size);
      taken -= lent[i].size;
      lent[i].at = NULL;
      break;
    }
  pthread_mutex_unlock(&lock);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) { return *total = whole(), *free = whole() - taken, 0; }
cudaError_t cudaHostAlloc(void **at, size_t size, unsigned flags) { return (*at = calloc(1, size)) ? 0 : 2; }
cudaError_t cudaFreeHost(void *at) { return free(at), 0; }

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) {
  if (kind == cudaMemcpyDeviceToHost) memset(to, 0, size);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
  waits++;
  return cudaMemcpyAsync(to, from, size, kind, NULL);
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *at) {
  memset(found, 0, sizeof *found);
  pthread_mutex_lock(&lock);
  for (int i = 0; i < MOST; i++)
    if (lent[i].at && (char *)at >= lent[i].at && (char *)at < lent[i].at + lent[i].size) {
      found->type = cudaMemoryTypeDevice;
      found->devicePointer = (void *)at;
    }
  pthread_mutex_unlock(&lock);
  return cudaSuccess;
}

CUresult cuPointerGetAttribute(void *value, CUpointer_attribute what, CUdeviceptr at) {
  if (what == CU_POINTER_ATTRIBUTE_DEVICE_POINTER) *(CUdeviceptr *)value = at;
  return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------------------------------------ streams and waits */

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *at, unsigned flags, int priority) { return HANDLE(cudaStream_t, at); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *at, unsigned flags) { return HANDLE(cudaEvent_t, at); }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return waits++, 0; }
cudaError_t cudaDeviceSynchronize(void) { return waits++, 0; }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) { return *ms = 1, 0; }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { return *least = 0, *greatest = -5, 0; }

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *found) {
  return *found = cudaStreamCaptureStatusNone, 0;
}

cudaError_t cudaStreamGetCaptureInfo(
    cudaStream_t stream, enum cudaStreamCaptureStatus *found, unsigned long long *id, cudaGraph_t *graph,
    const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges, size_t *count) {
  return cudaStreamIsCapturing(stream, found);
}

/* ------------------------------------------------------------------------------------- the device, as an H100 has it */

cudaError_t cudaGetDeviceCount(int *count) { return *count = 1, 0; }
cudaError_t cudaGetDevice(int *number) { return *number = 0, 0; }
cudaError_t cudaDriverGetVersion(int *version) { return *version = 13000, 0; }
cudaError_t cudaRuntimeGetVersion(int *version) { return *version = 13000, 0; }
const char *cudaGetErrorString(cudaError_t error) { return error == cudaErrorMemoryAllocation ? "out of memory" : "error"; }
const char *cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr what, int device) {
  switch (what) { /* the driver's numbers are the same */
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 49152; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 232448; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = 233472; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMaxRegistersPerBlock: *value = 65536; break;
    case cudaDevAttrMaxRegistersPerMultiprocessor: *value = 65536; break;
    case cudaDevAttrMultiProcessorCount: *value = 132; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    default: *value = 0;
  }
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *found, int device) {
  memset(found, 0, sizeof *found);
  strcpy(found->name, "stand-in, computes nothing");
  found->totalGlobalMem = whole();
  found->major = 9;
  found->multiProcessorCount = 132;
  found->warpSize = 32;
  found->maxThreadsPerBlock = found->maxThreadsDim[0] = found->maxThreadsDim[1] = 1024;
  found->maxThreadsDim[2] = 64;
  found->maxGridSize[0] = 2147483647;
  found->maxGridSize[1] = found->maxGridSize[2] = 65535;
  found->maxThreadsPerMultiProcessor = 2048;
  found->maxBlocksPerMultiProcessor = 32;
  found->sharedMemPerBlock = 49152;
  found->sharedMemPerBlockOptin = 232448;
  found->sharedMemPerMultiprocessor = 233472;
  found->regsPerBlock = found->regsPerMultiprocessor = 65536;
  found->l2CacheSize = 52428800;
  found->textureAlignment = 512;
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *found, const void *function) {
  memset(found, 0, sizeof *found);
  found->maxThreadsPerBlock = 1024;
  found->numRegs = 32;
  found->ptxVersion = found->binaryVersion = 90;
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *count, const void *function, int block, size_t shared) {
  return *count = 2, 0;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int *count, const void *function, int block, size_t shared, unsigned flags) {
  return *count = 2, 0;
}

/* ----------------------------------------------------------------------------------------- the driver, as Triton asks */

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) { return *flags = 0, *active = 1, 0; }
CUresult cuDevicePrimaryCtxRetain(CUcontext *at, CUdevice device) { return HANDLE(CUcontext, at); }
CUresult cuCtxGetCurrent(CUcontext *at) { return *at = (CUcontext)lent, 0; }
CUresult cuCtxGetDevice(CUdevice *device) { return *device = 0, 0; }
CUresult cuDeviceGet(CUdevice *device, int number) { return *device = number, 0; }
CUresult cuDeviceGetCount(int *count) { return *count = 1, 0; }
CUresult cuDriverGetVersion(int *version) { return *version = 13000, 0; }
CUresult cuGetErrorString(CUresult error, const char **said) { return *said = "error", 0; }
CUresult cuModuleLoadData(CUmodule *at, const void *image) { return HANDLE(CUmodule, at); }
CUresult cuModuleGetFunction(CUfunction *at, CUmodule module, const char *name) { return HANDLE(CUfunction, at); }

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute what, CUdevice device) {
  return cudaDeviceGetAttribute(value, (enum cudaDeviceAttr)what, device);
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute what, CUfunction function) {
  *value = what == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : what == CU_FUNC_ATTRIBUTE_NUM_REGS ? 64 : 0;
  return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(
    const char *name, void **found, unsigned version, unsigned long long flags,
    enum cudaDriverEntryPointQueryResult *result) {
  *found = dlsym(RTLD_DEFAULT, name);
  if (result) *result = *found ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return *found ? cudaSuccess : cudaErrorSymbolNotFound;
}

/* ------------------------------------------------------------------------------------------------------------ cuBLAS */

int cublasCreate_v2(void **at) { return HANDLE(void *, at); }
int cublasLtCreate(void **at) { return HANDLE(void *, at); }
int cublasLtMatmulDescCreate(void **at) { return HANDLE(void *, at); }
int cublasLtMatrixLayoutCreate(void **at) { return HANDLE(void *, at); }
int cublasLtMatmulPreferenceCreate(void **at) { return HANDLE(void *, at); }
int cublasGetMathMode(void *handle, int *mode) { return *mode = 0, 0; }
int cublasGetPointerMode_v2(void *handle, int *mode) { return *mode = 0, 0; }

int cublasLtMatmulAlgoGetHeuristic(
    void *handle, void *what, void *a, void *b, void *c, void *d, void *preference, int asked, void *found, int *count) {
  return *count = 1, 0;
}
