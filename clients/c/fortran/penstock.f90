! libpenstock for Fortran 2008: streams a solver's time steps to a Penstock training server.
!
!   use penstock
!   type(penstock_client) :: server
!   call server%connect(rank, ranks)                  ! MPI rank from 0 and their number; 0 and 1 without MPI
!   width = server%parameter("width")
!   call server%announce([penstock_field("T", PENSTOCK_FLOAT64, [nx, ny])])
!   do step = 0, steps - 1                            ! numbered from 0
!     ...
!     call server%send(1, step, time, T, offset)      ! field 1; offset: elements of the whole field before this rank's
!     call server%step_sent()
!   end do
!   call server%finish()
!
! Shapes are in Fortran order, with the first index running fastest: T(nx, ny). Penstock lists the slowest index first, so
! the study sees the shape (ny, nx). Components come first: U(3, nx, ny) is announced with shape [nx, ny] and components = 3.
!
! Each subroutine but `fail` and `close` has an optional argument `status`, which receives a PENSTOCK_ status; `error_text` describes a
! failure. Without `status` a failure is printed, reported to the server, and ends the program with `error stop`.
! penstock.h is the reference.
module penstock
  use, intrinsic :: iso_c_binding
  use penstock_connection
  implicit none
  private
  public :: penstock_client, penstock_field
  public :: PENSTOCK_OK, PENSTOCK_BAD_ARGUMENT, PENSTOCK_NO_CONNECTION, PENSTOCK_BAD_MESSAGE, PENSTOCK_REFUSED, &
      PENSTOCK_ABANDONED, PENSTOCK_SERVER_LOST, PENSTOCK_NO_MEMORY, PENSTOCK_FLOAT32, &
      PENSTOCK_FLOAT64, PENSTOCK_INT32, PENSTOCK_INT64, PENSTOCK_STATIC_STEP

  ! One connection to the server: the calls of penstock_connection.f90, and `send` for a number or an array of one to four
  ! dimensions, this process's part of a field. A copy refers to the same connection.
  type, extends(connection) :: penstock_client
  contains
    procedure, private :: send_real32_0, send_real32_1, send_real32_2, send_real32_3, send_real32_4, &
        send_real64_0, send_real64_1, send_real64_2, send_real64_3, send_real64_4, &
        send_int32_0, send_int32_1, send_int32_2, send_int32_3, send_int32_4, &
        send_int64_0, send_int64_1, send_int64_2, send_int64_3, send_int64_4
    generic :: send => send_real32_0, send_real32_1, send_real32_2, send_real32_3, send_real32_4, &
        send_real64_0, send_real64_1, send_real64_2, send_real64_3, send_real64_4, &
        send_int32_0, send_int32_1, send_int32_2, send_int32_3, send_int32_4, &
        send_int64_0, send_int64_1, send_int64_2, send_int64_3, send_int64_4
  end type penstock_client

contains

  subroutine send_real32_0(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    real(c_float), target, intent(in) :: values
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    call send_any(self, field, step, time, PENSTOCK_FLOAT32, c_loc(values), 1_c_int64_t, offset, status)
  end subroutine send_real32_0

  subroutine send_real32_1(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    real(c_float), contiguous, target, intent(in) :: values(:)
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    type(c_ptr) :: at
    at = c_null_ptr
    if (size(values) > 0) at = c_loc(values)
    call send_any(self, field, step, time, PENSTOCK_FLOAT32, at, size(values, kind=c_int64_t), offset, status)
  end subroutine send_real32_1

  subroutine send_real32_2(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    real(c_float), contiguous, target, intent(in) :: values(:,:)
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    type(c_ptr) :: at
    at = c_null_ptr
    if (size(values) > 0) at = c_loc(values)
    call send_any(self, field, step, time, PENSTOCK_FLOAT32, at, size(values, kind=c_int64_t), offset, status)
  end subroutine send_real32_2

  subroutine send_real32_3(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    real(c_float), contiguous, target, intent(in) :: values(:,:,:)
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    type(c_ptr) :: at
    at = c_null_ptr
    if (size(values) > 0) at = c_loc(values)
    call send_any(self, field, step, time, PENSTOCK_FLOAT32, at, size(values, kind=c_int64_t), offset, status)
  end subroutine send_real32_3

  subroutine send_real32_4(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    real(c_float), contiguous, target, intent(in) :: values(:,:,:,:)
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    type(c_ptr) :: at
    at = c_null_ptr
    if (size(values) > 0) at = c_loc(values)
    call send_any(self, field, step, time, PENSTOCK_FLOAT32, at, size(values, kind=c_int64_t), offset, status)
  end subroutine send_real32_4

  subroutine send_real64_0(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    real(c_double), target, intent(in) :: values
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    call send_any(self, field, step, time, PENSTOCK_FLOAT64, c_loc(values), 1_c_int64_t, offset, status)
  end subroutine send_real64_0

  subroutine send_real64_1(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    real(c_double), contiguous, target, intent(in) :: values(:)
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    type(c_ptr) :: at
    at = c_null_ptr
    if (size(values) > 0) at = c_loc(values)
    call send_any(self, field, step, time, PENSTOCK_FLOAT64, at, size(values, kind=c_int64_t), offset, status)
  end subroutine send_real64_1

  subroutine send_real64_2(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    real(c_double), contiguous, target, intent(in) :: values(:,:)
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    type(c_ptr) :: at
    at = c_null_ptr
    if (size(values) > 0) at = c_loc(values)
    call send_any(self, field, step, time, PENSTOCK_FLOAT64, at, size(values, kind=c_int64_t), offset, status)
  end subroutine send_real64_2

  subroutine send_real64_3(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    real(c_double), contiguous, target, intent(in) :: values(:,:,:)
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    type(c_ptr) :: at
    at = c_null_ptr
    if (size(values) > 0) at = c_loc(values)
    call send_any(self, field, step, time, PENSTOCK_FLOAT64, at, size(values, kind=c_int64_t), offset, status)
  end subroutine send_real64_3

  subroutine send_real64_4(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    real(c_double), contiguous, target, intent(in) :: values(:,:,:,:)
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    type(c_ptr) :: at
    at = c_null_ptr
    if (size(values) > 0) at = c_loc(values)
    call send_any(self, field, step, time, PENSTOCK_FLOAT64, at, size(values, kind=c_int64_t), offset, status)
  end subroutine send_real64_4

  subroutine send_int32_0(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    integer(c_int32_t), target, intent(in) :: values
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    call send_any(self, field, step, time, PENSTOCK_INT32, c_loc(values), 1_c_int64_t, offset, status)
  end subroutine send_int32_0

  subroutine send_int32_1(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    integer(c_int32_t), contiguous, target, intent(in) :: values(:)
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    type(c_ptr) :: at
    at = c_null_ptr
    if (size(values) > 0) at = c_loc(values)
    call send_any(self, field, step, time, PENSTOCK_INT32, at, size(values, kind=c_int64_t), offset, status)
  end subroutine send_int32_1

  subroutine send_int32_2(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    integer(c_int32_t), contiguous, target, intent(in) :: values(:,:)
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    type(c_ptr) :: at
    at = c_null_ptr
    if (size(values) > 0) at = c_loc(values)
    call send_any(self, field, step, time, PENSTOCK_INT32, at, size(values, kind=c_int64_t), offset, status)
  end subroutine send_int32_2

  subroutine send_int32_3(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    integer(c_int32_t), contiguous, target, intent(in) :: values(:,:,:)
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    type(c_ptr) :: at
    at = c_null_ptr
    if (size(values) > 0) at = c_loc(values)
    call send_any(self, field, step, time, PENSTOCK_INT32, at, size(values, kind=c_int64_t), offset, status)
  end subroutine send_int32_3

  subroutine send_int32_4(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    integer(c_int32_t), contiguous, target, intent(in) :: values(:,:,:,:)
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    type(c_ptr) :: at
    at = c_null_ptr
    if (size(values) > 0) at = c_loc(values)
    call send_any(self, field, step, time, PENSTOCK_INT32, at, size(values, kind=c_int64_t), offset, status)
  end subroutine send_int32_4

  subroutine send_int64_0(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    integer(c_int64_t), target, intent(in) :: values
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    call send_any(self, field, step, time, PENSTOCK_INT64, c_loc(values), 1_c_int64_t, offset, status)
  end subroutine send_int64_0

  subroutine send_int64_1(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    integer(c_int64_t), contiguous, target, intent(in) :: values(:)
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    type(c_ptr) :: at
    at = c_null_ptr
    if (size(values) > 0) at = c_loc(values)
    call send_any(self, field, step, time, PENSTOCK_INT64, at, size(values, kind=c_int64_t), offset, status)
  end subroutine send_int64_1

  subroutine send_int64_2(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    integer(c_int64_t), contiguous, target, intent(in) :: values(:,:)
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    type(c_ptr) :: at
    at = c_null_ptr
    if (size(values) > 0) at = c_loc(values)
    call send_any(self, field, step, time, PENSTOCK_INT64, at, size(values, kind=c_int64_t), offset, status)
  end subroutine send_int64_2

  subroutine send_int64_3(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    integer(c_int64_t), contiguous, target, intent(in) :: values(:,:,:)
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    type(c_ptr) :: at
    at = c_null_ptr
    if (size(values) > 0) at = c_loc(values)
    call send_any(self, field, step, time, PENSTOCK_INT64, at, size(values, kind=c_int64_t), offset, status)
  end subroutine send_int64_3

  subroutine send_int64_4(self, field, step, time, values, offset, status)
    class(penstock_client), intent(inout) :: self
    integer, intent(in) :: field, step
    real(c_double), intent(in) :: time
    integer(c_int64_t), contiguous, target, intent(in) :: values(:,:,:,:)
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    type(c_ptr) :: at
    at = c_null_ptr
    if (size(values) > 0) at = c_loc(values)
    call send_any(self, field, step, time, PENSTOCK_INT64, at, size(values, kind=c_int64_t), offset, status)
  end subroutine send_int64_4

end module penstock
