! Every kind and rank of array that penstock.f90 sends, with index lists, the mesh, and failures. Usage: fields [WAY]
program fields
  use, intrinsic :: iso_c_binding
  use mpi
  use penstock
  implicit none
  integer, parameter :: n = 6
  type(penstock_client) :: server
  integer(c_int64_t), allocatable :: held(:)
  real(c_double), allocatable :: u(:, :)
  integer :: rank, ranks, step, status, i, j, ierr
  character(len=32) :: way = ""

  call MPI_Init(ierr)
  call MPI_Comm_rank(MPI_COMM_WORLD, rank, ierr)
  call MPI_Comm_size(MPI_COMM_WORLD, ranks, ierr)
  if (command_argument_count() > 0) call get_command_argument(1, way)
  call server%connect(rank, ranks)
  if (server%simulation() /= 0 .or. server%is_validation()) error stop "simulation"
  if (server%attempt() /= 1) error stop "attempt"
  if (server%parameter("a") < 2 .or. server%parameter("a") > 3) error stop "parameter"
  if (way == "parameter") print *, server%parameter("b")
  call server%announce([penstock_field("u", PENSTOCK_FLOAT64, [n], components=2), &
      penstock_field("f", PENSTOCK_FLOAT32, [2, n]), penstock_field("i", PENSTOCK_INT32, [n]), &
      penstock_field("l", PENSTOCK_INT64, [1, 2, n]), &
      penstock_field("s", PENSTOCK_FLOAT64, [1]), penstock_field("w", PENSTOCK_FLOAT32, [3, 1, n / 3], components=2), &
      penstock_field("cell_volumes", PENSTOCK_FLOAT64, [n], is_static=.true.)])
  if (way == "outside") call server%indices(1, [int(n + 1, c_int64_t)])
  held = [(int(i, c_int64_t), i=n - rank, 1, -ranks)] ! points from 1, scattered and falling
  call server%indices(1, held)
  call server%indices(7, held)
  if (server%wanted(7)) call server%send(7, PENSTOCK_STATIC_STEP, 0.0_c_double, real(held, c_double))
  allocate (u(2, size(held)))
  do step = 0, 2
    do i = 1, size(held)
      u(:, i) = [(10 * held(i) + j + 100 * step, j=1, 2)]
    end do
    if (way == "late" .and. step == 1) call server%indices(1, held, status)
    if (way == "late" .and. step == 1) print "(i0, 1x, a)", status, server%error_text()
    call server%send(1, step, 0.5_c_double * step, u)
    if (rank == 0) then ! these fields are whole on rank 0
      call server%send(2, step, 0.5_c_double * step, reshape([(real(j + step, c_float), j=1, 2 * n)], [2, n]))
      call server%send(3, step, 0.5_c_double * step, [(int(j * step, c_int32_t), j=1, n)])
      call server%send(4, step, 0.5_c_double * step, reshape([(int(-j, c_int64_t), j=1, n)], [1, 1, n]), 0_c_int64_t)
      call server%send(4, step, 0.5_c_double * step, reshape([(int(j, c_int64_t), j=1, n)], [1, 2, n / 2]), int(n, c_int64_t))
      call server%send(5, step, 0.5_c_double * step, 0.25_c_double + step)
      call server%send(6, step, 0.5_c_double * step, reshape([(real(step - j, c_float), j=1, 2 * n)], [2, 3, 1, n / 3]))
    end if
    if (way == "beyond") call server%send(3, step, 0.5_c_double * step, [1_c_int32_t], int(n, c_int64_t))
    call server%step_sent()
    call server%flush()
  end do
  if (way == "fail") then
    call server%fail("diverged on purpose")
  else if (way == "close") then
    call server%close()
    if (server%simulation() /= -1) error stop "close"
  else
    call server%finish()
  end if
  call MPI_Finalize(ierr)
end program fields
