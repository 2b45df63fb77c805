! The heat equation on the unit square, explicit in time, on any number of MPI ranks. Each rank has a strip of rows,
! exchanges halos with its neighbours, and streams its own strip with libpenstock.
!
! Usage: heat POINTS STEPS; the parameters (initial, left, right, bottom, top) come from the server.
program heat
  use, intrinsic :: iso_c_binding, only: c_double, c_int64_t
  use mpi
  use penstock
  implicit none
  integer, parameter :: sweeps = 20 ! steps of the explicit scheme for each time step that is sent
  real(c_double), parameter :: ratio = 0.2_c_double ! dt / h^2; stable up to 0.25
  type(penstock_client) :: server
  real(c_double), allocatable :: T(:, :), next(:, :)
  real(c_double) :: time
  integer :: n, steps, rank, ranks, first, rows, below, above, step, sweep, x, y, ierr
  character(len=32) :: argument

  call MPI_Init(ierr)
  call MPI_Comm_rank(MPI_COMM_WORLD, rank, ierr)
  call MPI_Comm_size(MPI_COMM_WORLD, ranks, ierr)
  if (command_argument_count() /= 2) error stop "usage: heat POINTS STEPS"
  call get_command_argument(1, argument)
  read (argument, *) n
  call get_command_argument(2, argument)
  read (argument, *) steps
  first = n * rank / ranks
  rows = n * (rank + 1) / ranks - first
  below = merge(rank - 1, MPI_PROC_NULL, rank > 0)
  above = merge(rank + 1, MPI_PROC_NULL, rank < ranks - 1)

  call server%connect(rank, ranks)
  call server%announce([penstock_field("T", PENSTOCK_FLOAT64, [n, n])])

  ! Rows 1 to `rows` are this rank's, rows 0 and rows + 1 the neighbours' or the boundary's; so are columns 0 and n + 1.
  allocate (T(0:n + 1, 0:rows + 1))
  T = server%parameter("initial")
  T(0, :) = server%parameter("left")
  T(n + 1, :) = server%parameter("right")
  if (below == MPI_PROC_NULL) T(:, 0) = server%parameter("bottom")
  if (above == MPI_PROC_NULL) T(:, rows + 1) = server%parameter("top")
  next = T

  do step = 0, steps - 1
    do sweep = 1, sweeps
      call MPI_Sendrecv(T(:, 1), n + 2, MPI_DOUBLE_PRECISION, below, 0, T(:, rows + 1), n + 2, MPI_DOUBLE_PRECISION, &
          above, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE, ierr)
      call MPI_Sendrecv(T(:, rows), n + 2, MPI_DOUBLE_PRECISION, above, 1, T(:, 0), n + 2, MPI_DOUBLE_PRECISION, &
          below, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE, ierr)
      do y = 1, rows
        do x = 1, n
          next(x, y) = T(x, y) + ratio * (T(x - 1, y) + T(x + 1, y) + T(x, y - 1) + T(x, y + 1) - 4 * T(x, y))
        end do
      end do
      T(1:n, 1:rows) = next(1:n, 1:rows)
    end do
    time = (step + 1) * sweeps * ratio / (n + 1.0_c_double)**2
    call server%send(1, step, time, next(1:n, 1:rows), int(first, c_int64_t) * n)
    call server%step_sent()
  end do
  call server%finish()
  call MPI_Finalize(ierr)
  deallocate (T, next)
end program heat
