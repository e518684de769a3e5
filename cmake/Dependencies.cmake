# Everything that comes from outside, as targets. Debian packages, save Torch (wheels, unpacked under QUIRE_DEPS by the
# Makefile's set-up step) and the model that tests and `make serve` use.
set(QUIRE_DEPS ${CMAKE_SOURCE_DIR}/build/deps CACHE PATH "Where set-up unpacked the torch and nvidia wheels and the model")
set(QUIRE_MODEL ${QUIRE_DEPS}/model/SmolLM2-135M-Instruct.Q4_1.gguf CACHE FILEPATH "The model that tests run")
set(QUIRE_GEMMA_MODEL ${QUIRE_DEPS}/gemma/gemma-3-270m-q4_k_m.gguf CACHE FILEPATH "A second model; where it is absent its tests are skipped")
option(QUIRE_WITH_TORCH "Build the targets that use LibTorch" ON)

find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(ZLIB REQUIRED)
find_package(absl REQUIRED)
find_package(Boost 1.81 REQUIRED)
find_package(spdlog REQUIRED)
find_package(prometheus-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(GTest REQUIRED)
find_package(Protobuf REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(cairo REQUIRED IMPORTED_TARGET cairo)  # quire-eval's plots
find_library(QUIRE_LIB_rocksdb rocksdb REQUIRED)  # the disk tier; shared, for it brings five compressors that we do not use
add_library(rocksdb INTERFACE)
target_link_libraries(rocksdb INTERFACE ${QUIRE_LIB_rocksdb})
# The binaries' allocator: what threads free goes back to the kernel, which glibc keeps for good; large buffers are kept warm.
find_library(QUIRE_LIB_jemalloc libjemalloc_pic.a REQUIRED)
find_library(QUIRE_LIB_hiredis libhiredis.a REQUIRED)  # linked statically, as gRPC is
find_program(QUIRE_GRPC_PLUGIN grpc_cpp_plugin REQUIRED)

# xxHash is used header-only (XXH_INLINE_ALL), so that its SIMD paths are compiled with our flags.
find_path(QUIRE_XXHASH_INCLUDE xxhash.h REQUIRED)

# gRPC and Protobuf are linked statically (Debian's CMake package offers the shared ones only), in one group because their
# archives refer to each other. They come before Torch on every link line.
add_library(grpc_static INTERFACE)
set(grpc_archives)
foreach(name grpc++_reflection grpc++ grpc gpr address_sorting upb protobuf re2 cares)
  find_library(QUIRE_LIB_${name} lib${name}.a REQUIRED)
  list(APPEND grpc_archives ${QUIRE_LIB_${name}})
endforeach()
target_link_libraries(grpc_static INTERFACE
  -Wl,--start-group ${grpc_archives} -Wl,--end-group
  absl::base absl::cleanup absl::cord absl::flat_hash_map absl::flat_hash_set absl::hash absl::inlined_vector
  absl::random_random absl::status absl::statusor absl::str_format absl::strings absl::synchronization absl::time
  absl::bind_front absl::function_ref absl::any_invocable absl::optional absl::variant
  OpenSSL::SSL OpenSSL::Crypto ZLIB::ZLIB Threads::Threads ${CMAKE_DL_LIBS} rt)

if(QUIRE_WITH_TORCH)
  add_library(torch INTERFACE)
  target_include_directories(torch SYSTEM INTERFACE
    ${QUIRE_DEPS}/torch/include ${QUIRE_DEPS}/torch/include/torch/csrc/api/include)
  # Only the CPU half is linked; libtorch_cpu itself needs cudart and cupti, which it finds by its own rpath.
  target_link_libraries(torch INTERFACE ${QUIRE_DEPS}/torch/lib/libtorch_cpu.so ${QUIRE_DEPS}/torch/lib/libc10.so)
  target_link_options(torch INTERFACE -Wl,--allow-shlib-undefined -Wl,-rpath,${QUIRE_DEPS}/torch/lib)
endif()
