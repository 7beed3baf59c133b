// Stand in for CUDA on the host: run every thread of a launch, one after the other, of the very source that GPUs run.
#include <cmath>
#include <cstddef>

#define __global__
#define __device__
#define __forceinline__ inline
#define __align__(bytes) alignas(bytes)

struct Index {
    unsigned int x, y, z;
};
static thread_local Index blockIdx, blockDim, threadIdx;

#include "backproject.cu"

extern "C" void launch(unsigned int n_blocks, unsigned int block_x, unsigned int block_y, const short *values,
                       const Ray *rays, const float *scales, const int *slots, const int *starts, float *out, int n,
                       int n_splits, int rows, int columns, int nz, int ny, int nx, float min_depth)
{
    blockDim = {block_x, block_y, 1};
    for (unsigned int block = 0; block < n_blocks; ++block)
        for (unsigned int y = 0; y < block_y; ++y)
            for (unsigned int x = 0; x < block_x; ++x) {
                blockIdx = {block, 0, 0};
                threadIdx = {x, y, 0};
                backproject(values, rays, scales, slots, starts, out, n, n_splits, rows, columns, nz, ny, nx,
                            min_depth);
            }
}
