// Backprojection on the device: one thread for each voxel and split, one launch for a whole batch of grids.
//
// Positions are in float32, so they are counted from the middle: voxels from the grid's central one, pixels from the
// detector's central one. On a detector 2560 pixels wide that keeps them good to a few 1e-4 pixel. Nothing is shared
// between threads and nothing is atomic, so the sum is the same in every run.
//
// The tests also compile this file for the host: use no more of CUDA than tests/helpers/cuda_on_host.cpp stands in for.

// A coordinate times the depth w: its value at the central voxel, and its change a voxel further along x, y and z.
struct __align__(16) Plane {
    float centre, x, y, z;
};

struct Ray {
    Plane u, v, w;
};

static __device__ __forceinline__ float at(const Plane &plane, float x, float y, float z)
{
    return plane.centre + x * plane.x + y * plane.y + z * plane.z;
}

// values: (n_slots, rows, columns) with a border of zeros; rays: (n_grids, n); scales, slots: (n), ordered by split;
// starts: (n_splits + 1), where each split's projections begin; out: (n_grids, n_splits, nz, ny, nx), added to.
// Blocks: x counts tiles of a plane, then planes, then splits, then grids.
extern "C" __global__ void backproject(const short *__restrict__ values, const Ray *__restrict__ rays,
                                       const float *__restrict__ scales, const int *__restrict__ slots,
                                       const int *__restrict__ starts, float *__restrict__ out, int n, int n_splits,
                                       int rows, int columns, int nz, int ny, int nx, float min_depth)
{
    const unsigned int tiles_x = (nx + blockDim.x - 1) / blockDim.x;
    const unsigned int tiles_y = (ny + blockDim.y - 1) / blockDim.y;
    const unsigned int tile = blockIdx.x % (tiles_x * tiles_y);
    const unsigned int plane = blockIdx.x / (tiles_x * tiles_y);
    const int i = tile % tiles_x * blockDim.x + threadIdx.x;
    const int j = tile / tiles_x * blockDim.y + threadIdx.y;
    if (i >= nx || j >= ny)
        return;
    const int k = plane % nz;
    const int split = plane / nz % n_splits;
    const size_t grid = plane / nz / n_splits;

    const float x = i - nx / 2, y = j - ny / 2, z = k - nz / 2;
    const int middle_row = rows / 2, middle_column = columns / 2;
    const float left = -middle_column, right = columns - 1 - middle_column;
    const float top = -middle_row, bottom = rows - 1 - middle_row;
    const int end = starts[split + 1];
    float sum = 0.0f;
    for (int p = starts[split]; p < end; ++p) {
        const Ray ray = rays[grid * n + p];
        const float w = at(ray.w, x, y, z);
        if (!(w > min_depth))
            continue;
        const float inverse = 1.0f / w;
        const float u = at(ray.u, x, y, z) * inverse, v = at(ray.v, x, y, z) * inverse;
        if (!(u >= left && u < right && v >= top && v < bottom))
            continue;
        const float column = floorf(u), row = floorf(v);
        const float part_u = u - column, part_v = v - row;
        const int offset = ((int)row + middle_row) * columns + (int)column + middle_column;
        const short *pixel = values + (size_t)slots[p] * rows * columns + offset;
        const int a = pixel[0], b = pixel[1], c = pixel[columns], d = pixel[columns + 1];
        const float upper = a + part_u * (b - a);
        const float lower = c + part_u * (d - c);
        sum += scales[p] * inverse * inverse * (upper + part_v * (lower - upper));
    }
    out[((size_t)plane * ny + j) * nx + i] += sum;
}
