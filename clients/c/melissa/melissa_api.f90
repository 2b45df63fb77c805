! The calls of Melissa's client API for Fortran: include this file among
! the declarations of a program unit, in fixed form (melissa_api.f) or
! free form (melissa_api.f90, melissa/api.f90). Names of fields end with
! c_null_char. melissa_api.h describes the calls.
      interface
      subroutine melissa_init(field_name, local_vect_size, comm)        &
     & bind(c, name='melissa_init_f')
      use, intrinsic :: iso_c_binding, only: c_char, c_int
      character(kind=c_char), dimension(*) :: field_name
      integer(c_int) :: local_vect_size
      integer(c_int) :: comm
      end subroutine melissa_init

      subroutine melissa_init_no_mpi(field_name, vect_size)             &
     & bind(c, name='melissa_init_no_mpi_f')
      use, intrinsic :: iso_c_binding, only: c_char, c_int
      character(kind=c_char), dimension(*) :: field_name
      integer(c_int) :: vect_size
      end subroutine melissa_init_no_mpi

      subroutine melissa_send(field_name, send_vect)                    &
     & bind(c, name='melissa_send')
      use, intrinsic :: iso_c_binding, only: c_char, c_double
      character(kind=c_char), dimension(*) :: field_name
      real(c_double), dimension(*) :: send_vect
      end subroutine melissa_send

      subroutine melissa_send_no_mpi(field_name, send_vect)             &
     & bind(c, name='melissa_send_no_mpi')
      use, intrinsic :: iso_c_binding, only: c_char, c_double
      character(kind=c_char), dimension(*) :: field_name
      real(c_double), dimension(*) :: send_vect
      end subroutine melissa_send_no_mpi

      subroutine melissa_finalize() bind(c, name='melissa_finalize')
      end subroutine melissa_finalize
      end interface
