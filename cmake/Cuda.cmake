# nvcc from wheels, unpacked by set-up (cmake/setup/fetch_cuda.py) under QUIRE_CUDA; kernels are compiled by custom commands, so that
# CMake's own language check, which wants a toolkit of another shape and a driver, is not needed. No GPU is.
set(QUIRE_CUDA ${QUIRE_DEPS}/cuda CACHE PATH "Where set-up unpacked the CUDA wheels")
set(QUIRE_CUDA_ARCHS "90a" CACHE STRING "Compute capabilities to compile for; 90a alone has the fast kernels")

find_program(QUIRE_NVCC nvcc PATHS ${QUIRE_CUDA}/bin NO_DEFAULT_PATH REQUIRED)
set(QUIRE_NVCC_FLAGS -std=c++20 -O3 -I${CMAKE_SOURCE_DIR} --expt-relaxed-constexpr -ccbin ${CMAKE_CXX_COMPILER}
  -Xcompiler=-fPIC,-Wall -diag-suppress=20012)
foreach(arch ${QUIRE_CUDA_ARCHS})
  list(APPEND QUIRE_NVCC_FLAGS -gencode arch=compute_${arch},code=sm_${arch})
endforeach()

add_library(cudart_static INTERFACE)
target_include_directories(cudart_static SYSTEM INTERFACE ${QUIRE_CUDA}/include)
target_link_libraries(cudart_static INTERFACE ${QUIRE_CUDA}/lib/libcudart_static.a Threads::Threads ${CMAKE_DL_LIBS} rt)

# quire_cuda_object(OUT source [NAME=VALUE…]): compiles one .cu with these definitions; OUT is the object file.
function(quire_cuda_object out source)
  string(MAKE_C_IDENTIFIER "${source}_${ARGN}" stem)
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${stem}.o)
  list(TRANSFORM ARGN PREPEND -D OUTPUT_VARIABLE definitions)
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${CMAKE_COMMAND} -E env TMPDIR=${CMAKE_CURRENT_BINARY_DIR} ${QUIRE_NVCC} ${QUIRE_NVCC_FLAGS} ${definitions}
      -MD -MF ${object}.d -MT ${object} -c ${CMAKE_CURRENT_SOURCE_DIR}/${source} -o ${object}
    DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${source}
    DEPFILE ${object}.d
    COMMENT "nvcc ${source} ${ARGN}"
    VERBATIM)
  set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  set(${out} ${object} PARENT_SCOPE)
endfunction()
