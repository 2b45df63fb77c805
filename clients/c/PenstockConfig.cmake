# find_package(Penstock) gives Penstock::penstock and, as far as they were built, Penstock::mpi, Penstock::fortran,
# Penstock::melissa and Penstock::melissa_mpi. The targets for MPI solvers expect the solver to find and link its MPI.
get_filename_component(_penstock_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

if(NOT TARGET Penstock::penstock)
  add_library(Penstock::penstock SHARED IMPORTED)
  set_target_properties(Penstock::penstock PROPERTIES
    IMPORTED_LOCATION "${_penstock_prefix}/lib/libpenstock.so"
    INTERFACE_INCLUDE_DIRECTORIES "${_penstock_prefix}/include")
  foreach(_penstock_part mpi fortran melissa melissa_mpi)
    set(_penstock_archive "${_penstock_prefix}/lib/libpenstock_${_penstock_part}.a")
    if(EXISTS "${_penstock_archive}")
      add_library(Penstock::${_penstock_part} STATIC IMPORTED)
      set_target_properties(Penstock::${_penstock_part} PROPERTIES
        IMPORTED_LOCATION "${_penstock_archive}"
        INTERFACE_LINK_LIBRARIES Penstock::penstock)
      set(Penstock_${_penstock_part}_FOUND TRUE)
    endif()
  endforeach()
endif()

foreach(_penstock_part ${Penstock_FIND_COMPONENTS})
  if(Penstock_FIND_REQUIRED_${_penstock_part} AND NOT Penstock_${_penstock_part}_FOUND)
    set(Penstock_FOUND FALSE)
    set(Penstock_NOT_FOUND_MESSAGE "this libpenstock was built without ${_penstock_part}")
  endif()
endforeach()
unset(_penstock_part)
unset(_penstock_archive)
