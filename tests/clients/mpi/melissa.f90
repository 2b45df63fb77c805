! A solver in Fortran that is instrumented for Melissa; the same as melissa.c with MPI. Usage: melissa A STEPS POINTS
program melissa
  use, intrinsic :: iso_c_binding
  use mpi
  implicit none
  include "melissa/api.f90"
  character(kind=c_char, len=12) :: temperature_name = c_char_"temperature" // c_null_char
  character(kind=c_char, len=9) :: pressure_name = c_char_"pressure" // c_null_char
  character(len=64) :: argument
  real(c_double), allocatable :: temperature(:), pressure(:)
  real(c_double) :: a
  integer :: steps, points, rank, ranks, first, mine, step, i, ierr

  call MPI_Init(ierr)
  call MPI_Comm_rank(MPI_COMM_WORLD, rank, ierr)
  call MPI_Comm_size(MPI_COMM_WORLD, ranks, ierr)
  call get_command_argument(1, argument)
  read (argument, *) a
  call get_command_argument(2, argument)
  read (argument, *) steps
  call get_command_argument(3, argument)
  read (argument, *) points
  first = points * rank / ranks
  mine = points * (rank + 1) / ranks - first
  allocate (temperature(mine), pressure(2 * mine))
  call melissa_init(temperature_name, mine, MPI_COMM_WORLD)
  call melissa_init(pressure_name, 2 * mine, MPI_COMM_WORLD)
  do step = 0, steps - 1
    temperature = [(a + step + (first + i) / 1024.0_c_double, i=0, mine - 1)]
    pressure = [(a - step - (2 * first + i) / 1024.0_c_double, i=0, 2 * mine - 1)]
    call melissa_send(temperature_name, temperature)
    call melissa_send(pressure_name, pressure)
  end do
  call melissa_finalize()
  call MPI_Finalize(ierr)
end program melissa
