# quire_rust_library(name DIR crate-folder DEPS system-libraries…): an imported target for a crate that builds lib<name>.a.
#
# Cargo builds under the build folder, with the committed Cargo.lock. It runs again only when a source of the crate changed; once the
# crates are fetched it needs no network. A process may hold only one Rust static library (each brings the whole Rust runtime),
# so crates that need Rust are added to the one that exists.
set(QUIRE_RUST_MINIMUM 1.85)

find_program(QUIRE_CARGO cargo HINTS $ENV{CARGO_HOME}/bin $ENV{HOME}/.cargo/bin)
if(NOT QUIRE_CARGO)
  message(FATAL_ERROR "cargo was not found: install Rust ${QUIRE_RUST_MINIMUM} or newer (Debian: apt-get install cargo-web rustc-web)")
endif()
execute_process(COMMAND ${QUIRE_CARGO} --version OUTPUT_VARIABLE cargo_version OUTPUT_STRIP_TRAILING_WHITESPACE)
string(REGEX MATCH "[0-9]+\\.[0-9]+(\\.[0-9]+)?" cargo_version "${cargo_version}")
if(cargo_version VERSION_LESS QUIRE_RUST_MINIMUM)
  message(FATAL_ERROR "${QUIRE_CARGO} is version ${cargo_version}: Rust ${QUIRE_RUST_MINIMUM} or newer is needed "
    "(Debian: apt-get install cargo-web rustc-web, then set QUIRE_CARGO if another cargo comes first)")
endif()
cmake_host_system_information(RESULT quire_cores QUERY NUMBER_OF_LOGICAL_CORES)
if(quire_cores GREATER 8)
  set(quire_cores 8)
endif()
set(QUIRE_CARGO_JOBS ${quire_cores} CACHE STRING "How many crates cargo compiles at once")

function(quire_rust_library name)
  cmake_parse_arguments(arg "" "DIR" "DEPS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${arg_DIR}/src/*.rs)
  set(target_dir ${CMAKE_BINARY_DIR}/rust)
  set(archive ${target_dir}/release/lib${name}.a)
  # rustc of the same installation as cargo goes first: a machine may have an older one beside it.
  get_filename_component(cargo_bin ${QUIRE_CARGO} DIRECTORY)
  add_custom_command(
    OUTPUT ${archive}
    COMMAND ${CMAKE_COMMAND} -E env CARGO_TARGET_DIR=${target_dir} "PATH=${cargo_bin}:$ENV{PATH}"
            ${QUIRE_CARGO} build --release --locked --lib --jobs ${QUIRE_CARGO_JOBS} --manifest-path ${arg_DIR}/Cargo.toml
    # Cargo leaves the archive as it is when nothing that matters changed; ninja wants to see it newer than its sources.
    COMMAND ${CMAKE_COMMAND} -E touch ${archive}
    DEPENDS ${sources} ${arg_DIR}/Cargo.toml ${arg_DIR}/Cargo.lock
    WORKING_DIRECTORY ${arg_DIR}
    COMMENT "Building the Rust crate ${name}"
    USES_TERMINAL VERBATIM)
  add_custom_target(${name}_build DEPENDS ${archive})
  add_library(${name} STATIC IMPORTED GLOBAL)
  set_target_properties(${name} PROPERTIES IMPORTED_LOCATION ${archive})
  target_link_libraries(${name} INTERFACE ${arg_DEPS})
  add_dependencies(${name} ${name}_build)
endfunction()
